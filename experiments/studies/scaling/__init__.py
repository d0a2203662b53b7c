"""What a large run would need: its sizes, the compiler's numbers and the rate of the input."""
