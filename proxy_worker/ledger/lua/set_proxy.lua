-- What a proxy is to subscribe to and how much it may do; it need not have registered yet.
-- ARGV: epoch, proxy, lanes(JSON), enabled, max_concurrent_tasks or ''. Answers 'ok' or 'stale'.
local epoch, name, lanes, enabled, limit = unpack(ARGV)
if not epoch_is(epoch) then return {'stale'} end
redis.call('HSET', orders_key(name), 'lanes', lanes, 'enabled', enabled, 'max_concurrent_tasks', limit)
return {'ok'}
