"""The one room where private keys are: all that imports cryptography or sees a private byte."""
