"""The plugins we keep: one file each, named as in YAML."""
