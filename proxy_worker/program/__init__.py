"""What both commands owe whoever starts them: errors in one line with an exit code, and settings from files.

Nouns: a *program* (`proxy-worker`, `scheduler`), its *commands* (loaded when asked for), its *settings* (TOML that
the environment may override), a *secret* (one file in a folder, named and never contained by the settings), what is
*closing* (open until the end of a `with`). It must not know what either program does.
"""
