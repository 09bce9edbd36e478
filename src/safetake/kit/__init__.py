"""The recovery kit: one page with which a stranger brings everything back, and its rehearsal."""
