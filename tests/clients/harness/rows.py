"""The rows of the table: what was seen of a client, beside what was expected."""

COLUMNS = ("client", "version", "sent", "accepted", "sessions", "a person says", "duplicates dropped", "after one 503", "")

# Events that keep a session alive, and those about a person or a group: they never count in a session (docs/clients.md).
NOT_COUNTED = {"$pageleave", "$create_alias", "$groupidentify"}


def row(name, version, expected, plain, after_503, answer_lost):
    """Returns the cells of a client's row and the faults in it, as sentences. The sessions expected are those a person would say."""
    faults = []
    kept_back = expected.get("kept_back", 0)
    not_counted = {*NOT_COUNTED, *expected.get("not_counted", ())}

    def check(what, found, wanted):
        if found != wanted:
            faults.append(f"{what}: {found}, expected {wanted}")

    def lost(visit):
        return len(visit.sent) - kept_back - len(visit.events)

    for title, visit in (("plain", plain), ("one 503", after_503), ("one answer lost", answer_lost)):
        faults += [f"{title}: {fault}" for fault in visit.faults]
        # A browser's client adds events of its own, as many as time allows; a server's sends what it was told to.
        least = expected["sent"]
        if len(visit.sent) < least or (len(visit.sent) > least and not expected.get("browser")):
            faults.append(f"{title}: events sent: {len(visit.sent)}, expected {least}")
        check(f"{title}: events lost", lost(visit), expected.get("lost_after_503", 0) if visit is after_503 else 0)
        # A duplicate that counted would be one event more.
        check(f"{title}: events counted in sessions", visit.counted, len(visit.countable(not_counted)))
        check(f"{title}: users recorded", visit.users, {f"user-{visit.name}"})
        check(f"{title}: sessions named by events", len(visit.session_ids()), len(visit.sessions))
    for title, visit in (("plain", plain), ("one answer lost", answer_lost)):
        check(f"{title}: sessions", len(visit.sessions), expected["sessions"])
    check("the client tries again after a lost answer", answer_lost.duplicates > 0, expected.get("tries_again", True))
    cells = (
        name, version, len(plain.sent), len(plain.events), len(plain.sessions), expected["sessions"],
        answer_lost.duplicates, f"{lost(after_503)} lost" if lost(after_503) else "nothing lost", "WRONG" if faults else "right",
    )
    return [str(cell) for cell in cells], faults


def table(rows):
    """Returns the rows as text, in columns."""
    rows = [COLUMNS, *rows]
    widths = [max(len(cells[at]) for cells in rows) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in rows)
