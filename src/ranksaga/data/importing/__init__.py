"""From a person's own files to a dataset in BEIR layout: readers of many formats, one typed form, one writer."""
