-- wrk's own numbers as one line of JSON, in microseconds (LoadResult in bench/load.ts, without the CPU).
-- With GATE_MS, connections are opened at once and wait that long before their first request: handshakes are then not in the
-- cost of a request, nor in its latency. OPEN is the number of connections of one thread.
-- With CLOSE_EVERY, every so many requests of a thread end their connection, and a new one takes its place.
local gate = tonumber(os.getenv("GATE_MS"))
local waiting = tonumber(os.getenv("OPEN"))

if gate then
  function delay()
    if waiting == 0 then return 0 end
    waiting = waiting - 1
    return gate
  end
end

local closeEvery = tonumber(os.getenv("CLOSE_EVERY"))
if closeEvery then
  local count, keep, close = 0, nil, nil
  function init()
    keep, close = wrk.format("GET", "/"), wrk.format("GET", "/close")
  end
  function request()
    count = count + 1
    return count % closeEvery == 0 and close or keep
  end
end

function done(summary, latency)
  local e = summary.errors
  local failures = e.connect + e.read + e.write + e.status + e.timeout
  local failure = ""
  if failures > 0 then
    failure = string.format(',"failure":"connect %d, read %d, write %d, status %d, timeout %d"', e.connect, e.read, e.write, e.status, e.timeout)
  end
  io.write(string.format('{"operations":%d,"failures":%d%s,"seconds":%.6f,"p50Us":%d,"p99Us":%d}\n', summary.requests, failures, failure,
    (summary.duration / 1000 - (gate or 0)) / 1000, latency:percentile(50), latency:percentile(99)))
end
