"""What works with AWS, against moto's server and real programs."""
