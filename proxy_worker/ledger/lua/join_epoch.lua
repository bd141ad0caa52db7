-- Go on in an epoch that is open, with these timings.
-- ARGV: epoch, timings(JSON). Answers 'ok' or 'stale' and the epoch in force (or false).
local current = redis.call('HGET', META, 'epoch')
if current ~= ARGV[1] then return {'stale', current} end
redis.call('HSET', META, 'timings', ARGV[2])
return {'ok', current}
