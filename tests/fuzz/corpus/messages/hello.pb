

ddecodem"f(	0	8BxP