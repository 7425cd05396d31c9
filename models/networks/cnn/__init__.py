"""The study's small network: three 3x3 convolutions with batch norm, two max-pools, three dense layers."""
