"""Finds the sessions of a file of events with DuckDB, on one thread; a line a session to standard output.

    python3 duckdb_sessions.py [--annotate] FILE

With `--annotate`, the events instead, each with its session's number on it, ordered by visitor.
"""

import sys

import duckdb

# What the sessions need, and nothing else, is taken out of the events. With `properties` as JSON and the address
# extracted from it, the whole takes half as long again; with a schema that DuckDB finds by itself, as long.
FIELDS = """
  SELECT distinct_id, epoch_ms("timestamp") AS ms, event = '$pageview' AS is_view, properties."$current_url" AS url
  FROM read_ndjson('{file}', columns = {{
    event: 'VARCHAR', distinct_id: 'VARCHAR', "timestamp": 'TIMESTAMP', properties: 'STRUCT("$current_url" VARCHAR)'}})
"""

# An event's whole text, and what the session's number needs; both fields in one extraction.
TEXTS = """
  SELECT json, field[1] AS distinct_id, epoch_ms(field[2]::TIMESTAMP) AS ms
  FROM (SELECT json, json_extract_string(json, ['$.distinct_id', '$.timestamp']) AS field
        FROM read_ndjson_objects('{file}'))
"""

# Sorted once, both window functions stream; with PARTITION BY in each the whole takes a tenth longer.
NUMBERED = """
  sorted AS (SELECT * FROM event ORDER BY distinct_id, ms),
  cut AS (SELECT *, coalesce(distinct_id <> lag(distinct_id) OVER () OR ms - lag(ms) OVER () > 30 * 60 * 1000, true)
          AS begins FROM sorted),
  numbered AS (SELECT *, sum(begins::INT) OVER (ROWS UNBOUNDED PRECEDING) AS session FROM cut)
"""

SESSIONS = f"""
  WITH event AS ({FIELDS}), {NUMBERED}
  SELECT any_value(distinct_id), min(ms), max(ms), count(*), count_if(is_view), arg_min(url, ms)
  FROM numbered GROUP BY session
"""

ANNOTATED = f"""
  WITH event AS ({TEXTS}), {NUMBERED}
  SELECT '{{{{"$session_id":"' || session || '",' || json[2:] FROM numbered
"""


def main(arguments):
    *flags, file = arguments
    annotate = flags == ["--annotate"]
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    query = (ANNOTATED if annotate else SESSIONS).format(file=file.replace("'", "''"))
    # A tab occurs in no JSON: the one column is written as it is.
    form = "FORMAT csv, HEADER false" + (", QUOTE '', ESCAPE '', DELIMITER '\t'" if annotate else "")
    connection.execute(f"COPY ({query}) TO '/dev/stdout' ({form})")


if __name__ == "__main__":
    main(sys.argv[1:])
