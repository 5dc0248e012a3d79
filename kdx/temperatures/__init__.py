"""The distillation temperature: constant, scheduled, or learned against the student."""
