"""The command line, by what one wants to do; each module is one group of commands.

painting   demo, apply
watching   watch, run, init
steering   console, status, jobs, retry, pause, resume, cancel
setup      config, weights, doctor, service
presets    presets
options    options that several commands have
answers    how results and notes are written
known      the presets that commands know, and the options that name them
"""
