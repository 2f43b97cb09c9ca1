"""The main job on one machine: two facilities, one stream, real bytes. Run it with `python -m scistream.demo`."""
