"""What a caller gives: arrays of NumPy, torch and CuPy, numbers, threads, and the backend."""
