"""YAML in, frozen dataclasses out: presets, the config, its rules, and where they lie.

yamlfile     a YAML file, with the place of every key
checking     its values, held against a dataclass
notations    values that may be written in several ways
config       stylewatch.yaml as dataclasses
loading      how they are made
layout       whether its folders lie well
readiness    whether all of it can work just now
rules        which photos a rule is about
choice       which presets a photo gets
presetfile   one preset's file
presets      all presets, which build on each other
states       whether files have changed since they were read
weights      VGG19's weights on this disk
paths        where config, state and presets lie
starter      what `init` makes
"""
