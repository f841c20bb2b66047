"""The command line: LightningCLI verbs and plain verbs."""
