-- Remove a proxy that is away and holds nothing. Anybody's call does no harm, so that it takes no epoch.
-- ARGV: proxy. Answers 'ok' or 'busy'.
local name = ARGV[1]
local times = timings()
local record = fields(proxy_key(name), 'heartbeat', 'left')
local alive = record.left and is_live(record, times.proxy_timeout_s or 0)
if alive or slots_used(name, ledger_time(times.tick_s or 0)) > 0 then return {'busy'} end
redis.call('DEL', proxy_key(name), orders_key(name), slots_key(name), residue_key(name))
redis.call('SREM', PROXIES, name)
return {'ok'}
