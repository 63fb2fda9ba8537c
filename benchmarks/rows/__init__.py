"""The rows of the table that `peers.py` prints, one file per topic; `table` names them all."""
