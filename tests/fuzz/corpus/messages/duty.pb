¢
decode