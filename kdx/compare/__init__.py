"""Finished runs compared: records, groups over seeds, paired differences, tables and the HTML page. No torch, no Hydra."""
