"""What operators and auditors see: Prometheus, the record, logs without patient data."""
