"""The command line, by what one wants to do; each module is one group of commands."""
