"""One decoder, many task encoders, and requests of all of them decoded together."""
