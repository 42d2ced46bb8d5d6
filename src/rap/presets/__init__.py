"""What `rap dataset use` sets for each dataset: NAME.yaml. params.yaml is a link to that of the project."""
