"""What happened to context variables while a program ran: recorded, asked about, and shown."""
