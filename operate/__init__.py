"""How the verbs are done: find nodes, reach them, push, launch, follow, fetch, count the money, tear down."""
