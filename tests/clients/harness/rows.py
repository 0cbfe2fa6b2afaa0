"""The rows of the table: what was seen of a client, beside what was expected."""

COLUMNS = ("client", "version", "sent", "accepted", "sessions", "a person says", "duplicates dropped", "after one 503", "")


def row(name, version, expected, plain, after_503, answer_lost):
    """Returns the cells of a client's row and the faults in it, as sentences."""
    faults = [fault for visit in (plain, after_503, answer_lost) for fault in visit.faults]

    def check(what, found, wanted):
        if found != wanted:
            faults.append(f"{what}: {found}, expected {wanted}")

    check("events sent", len(plain.sent), expected["sent"])
    check("events accepted", len(plain.events), expected["accepted"])
    check("sessions", len(plain.sessions), expected["sessions"])
    check("sessions, by their events' annotation", len(plain.session_ids()), expected["sessions"])
    lost = len(plain.events) - len(after_503.events)
    check("events lost after one 503", lost, expected.get("lost_after_503", 0))
    check("an answer lost makes duplicates", answer_lost.duplicates > 0, expected.get("tries_again", True))
    # A duplicate that counted would be one more event in a session.
    check("events accepted, one answer lost", len(answer_lost.events), expected["accepted"])
    check("events counted in sessions, one answer lost", answer_lost.counted, plain.counted)
    check("sessions, one answer lost", len(answer_lost.sessions), expected["sessions"])
    cells = (
        name, version, len(plain.sent), len(plain.events), len(plain.sessions), expected["person"],
        answer_lost.duplicates, f"{lost} lost" if lost else "nothing lost", "WRONG" if faults else "right",
    )
    return [str(cell) for cell in cells], faults


def table(rows):
    """Returns the rows as text, in columns."""
    rows = [COLUMNS, *rows]
    widths = [max(len(cells[at]) for cells in rows) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in rows)
