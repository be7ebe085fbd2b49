"""What a host used: CPU seconds, health over time, and joules with their source and error."""
