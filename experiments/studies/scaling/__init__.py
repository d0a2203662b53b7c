"""What a run at scale would take: its sizes, the compiler's account of it, the input's rate."""
