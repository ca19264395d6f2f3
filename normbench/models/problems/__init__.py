"""What can be wrong with the norms of a network: one function per problem."""
