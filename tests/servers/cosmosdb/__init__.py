"""An Azure Cosmos DB account on loopback, for tests: `python -m cosmosdb` prints its address. Its client is azure-cosmos, as it is.

documents   the account: databases, containers, partitions and documents, with the limits of the service and its errors
sql         queries: SELECT over the documents of a container
web         the HTTP side: signatures, headers, pages
__main__    the process

It keeps what the service promises about writes: a key that is checked by its HMAC (401), read-only keys and a firewall (403), partition
keys taken from the document, 409 on create, 412 on If-Match, transactional batches that are rolled back as a whole, at most 100 operations
and 2 MB for a request and a document (413), a budget of request units with 429 and `x-ms-retry-after-ms`, results in pages.

What it does not do: several physical partitions and query plans, sessions, time to live, stored procedures, change feed, hierarchical
partition keys, indexing policies. Charges are made up, in the order of size of the real ones. Documents are in memory.
"""
