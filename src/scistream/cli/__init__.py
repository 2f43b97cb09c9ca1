"""The command line tools: `s2cs`, `s2uc`, `appctrl`. They parse, call and print; heavy imports stand in functions."""
