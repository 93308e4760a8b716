"""Everything on the workstation that calls AWS. boto3 comes with the extra `aws`, and is imported when used."""
