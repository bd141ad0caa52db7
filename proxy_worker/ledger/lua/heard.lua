-- How the ledger hears a proxy. ARGV: proxy. Answers the age of its last heartbeat; false when it is not registered, or
-- has left.
local record = fields(proxy_key(ARGV[1]), 'heartbeat', 'left')
if not record.heartbeat or record.left == '1' then return false end
return stamp(now - tonumber(record.heartbeat))
