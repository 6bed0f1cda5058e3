"""Running a net in every runtime and comparing each blob."""
