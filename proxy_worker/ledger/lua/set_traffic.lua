-- Which limits there are, and what they hold for; replaces what was said before.
-- ARGV: epoch, limits(JSON: rule -> bytes per second), flows(JSON: flow -> rules). Answers 'ok' or 'stale'.
if not epoch_is(ARGV[1]) then return {'stale'} end
redis.call('DEL', TRAFFIC)
redis.call('HDEL', META, 'shared_at')
for rule, rate in pairs(cjson.decode(ARGV[2])) do redis.call('HSET', TRAFFIC, 'limit:' .. rule, rate) end
for flow, rules in pairs(cjson.decode(ARGV[3])) do redis.call('HSET', TRAFFIC, flow, cjson.encode(rules)) end
return {'ok'}
