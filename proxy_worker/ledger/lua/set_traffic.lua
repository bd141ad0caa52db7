-- Which limits there are, and what they hold for: instead of all that was said before, or of what differs from it.
-- ARGV: epoch, 1 (of all) or 0, fields that are gone(JSON), limits(JSON: rule -> bytes per second), flows(JSON: flow ->
-- rules). Answers 'ok' or 'stale'.
local epoch, anew, gone, limits, flows = unpack(ARGV)
if not epoch_is(epoch) then return {'stale'} end
if anew == '1' then redis.call('DEL', TRAFFIC) end
redis.call('HDEL', META, 'shared_at')
for _, field in ipairs(cjson.decode(gone)) do redis.call('HDEL', TRAFFIC, field) end
for rule, rate in pairs(cjson.decode(limits)) do redis.call('HSET', TRAFFIC, 'limit:' .. rule, rate) end
for flow, rules in pairs(cjson.decode(flows)) do redis.call('HSET', TRAFFIC, flow, cjson.encode(rules)) end
return {'ok'}
