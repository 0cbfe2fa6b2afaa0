"""Finds the sessions of a file of events with DuckDB, on one thread, and prints one line for each session.

    python3 duckdb_sessions.py [--annotate] GAP_SECONDS FILE

A session ends if the next event is more than GAP_SECONDS later. With `--annotate`, it prints the events instead, each with the number of its session, ordered by visitor.
"""

import sys

import duckdb

# Reads only the fields that the sessions need. If `properties` is JSON and the URL is extracted from it, the query takes
# half as long again; with a schema that DuckDB detects itself, it takes as long.
FIELDS = """
  SELECT distinct_id, epoch_ms("timestamp") AS ms, event = '$pageview' AS is_view, properties."$current_url" AS url
  FROM read_ndjson('{file}', columns = {{
    event: 'VARCHAR', distinct_id: 'VARCHAR', "timestamp": 'TIMESTAMP', properties: 'STRUCT("$current_url" VARCHAR)'}})
"""

# Reads each event's JSON and the fields that the session's number needs, both in one extraction.
JSON_EVENTS = """
  SELECT json, field[1] AS distinct_id, epoch_ms(field[2]::TIMESTAMP) AS ms
  FROM (SELECT json, json_extract_string(json, ['$.distinct_id', '$.timestamp']) AS field
        FROM read_ndjson_objects('{file}'))
"""

# Both window functions stream over one sorted table. With PARTITION BY in each, the query takes a tenth longer.
NUMBERED = """
  sorted AS (SELECT * FROM event ORDER BY distinct_id, ms),
  cut AS (SELECT *, coalesce(distinct_id <> lag(distinct_id) OVER () OR ms - lag(ms) OVER () > {gap_ms}, true)
          AS begins FROM sorted),
  numbered AS (SELECT *, sum(begins::INT) OVER (ROWS UNBOUNDED PRECEDING) AS session FROM cut)
"""

SESSIONS = f"""
  WITH event AS ({FIELDS}), {NUMBERED}
  SELECT any_value(distinct_id), min(ms), max(ms), count(*), count_if(is_view), arg_min(url, ms)
  FROM numbered GROUP BY session
"""

ANNOTATED = f"""
  WITH event AS ({JSON_EVENTS}), {NUMBERED}
  SELECT '{{{{"$session_id":"' || session || '",' || json[2:] FROM numbered
"""


def main(arguments):
    *flags, gap_seconds, file = arguments
    annotate = flags == ["--annotate"]
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    query = (ANNOTATED if annotate else SESSIONS).format(
        file=file.replace("'", "''"), gap_ms=int(gap_seconds) * 1000
    )
    # JSON contains no tabs, so the single column is written unchanged.
    form = "FORMAT csv, HEADER false" + (", QUOTE '', ESCAPE '', DELIMITER '\t'" if annotate else "")
    connection.execute(f"COPY ({query}) TO '/dev/stdout' ({form})")


if __name__ == "__main__":
    main(sys.argv[1:])
