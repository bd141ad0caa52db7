"""What became of a run, for people who weren't there: as text, as a mail, as a page with a picture.

Nouns: a report (`run_report`, all that is recorded of a run, in figures), its timeline (`timeline`, who had which
disk when, and where the time went), a drawing (`drawing`, the timeline in coordinates), a page (`html`), figures
(`figures`, how they are written). It reads the database and nothing else; it must not know of the command line, nor
of who gets a report.
"""
