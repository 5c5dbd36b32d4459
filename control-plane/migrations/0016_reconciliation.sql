-- Finds the delivery of an invoice that a provider lists.
create index delivery_provider_invoice on delivery (provider, provider_invoice_id);
