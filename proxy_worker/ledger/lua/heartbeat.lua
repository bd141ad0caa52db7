-- A proxy is alive; the answer is what it is to do.
-- ARGV: proxy, life, draining, note. Answers 'ok' with lanes, enabled, max_concurrent_tasks, time; 'unknown' when the
-- ledger has lost the registration; 'taken' when another life has the name now.
local name, life, draining, note = unpack(ARGV)
local record = fields(proxy_key(name), 'life', 'draining')
if not record.life then return {'unknown'} end
if record.life ~= life then return {'taken'} end
redis.call('HSET', proxy_key(name), 'heartbeat', stamp(now), 'draining', draining, 'note', note)
if record.draining ~= draining then ring() end
local orders = redis.call('HMGET', orders_key(name), 'lanes', 'enabled', 'max_concurrent_tasks')
return {'ok', orders[1], orders[2], orders[3], stamp(now)}
