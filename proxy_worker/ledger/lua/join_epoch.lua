-- Go on in an epoch that is open, with these timings; whoever led it in an earlier term is not heard any more.
-- ARGV: epoch, timings(JSON), term. Answers 'ok' or 'stale' and the epoch in force (or false).
local current = redis.call('HGET', META, 'epoch')
if current ~= ARGV[1] then return {'stale', current} end
if tonumber(ARGV[3]) < tonumber(redis.call('HGET', META, 'term') or 0) then return {'stale', current} end
redis.call('HSET', META, 'term', ARGV[3], 'timings', ARGV[2])
return {'ok', current}
