"""From a YAML file to attrs classes, with the place of every mistake. Knows nothing of pipelines."""
