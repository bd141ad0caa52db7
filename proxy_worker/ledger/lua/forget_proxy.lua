-- Remove a proxy that is away and holds nothing.
-- ARGV: epoch, proxy. Answers 'ok', 'busy' or 'stale'.
local epoch, name = unpack(ARGV)
if not epoch_is(epoch) then return {'stale'} end
local times = timings()
local record = fields(proxy_key(name), 'heartbeat', 'left')
local alive = record.left and is_live(record, times.proxy_timeout_s)
if alive or slots_used(name, ledger_time(times.tick_s)) > 0 then return {'busy'} end
redis.call('DEL', proxy_key(name), orders_key(name), slots_key(name), residue_key(name))
redis.call('SREM', PROXIES, name)
return {'ok'}
