"""The plain verbs of the command line: functions whose signatures are the options."""
