"""What must last: one SQLite file a subject, each with one writer."""
