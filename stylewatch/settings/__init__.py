"""YAML in, frozen dataclasses out: presets, the config, its rules, and where they lie."""
