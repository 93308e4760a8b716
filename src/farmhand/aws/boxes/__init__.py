"""Farm hosts on Lightsail and EC2."""
