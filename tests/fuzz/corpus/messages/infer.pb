
m1*

text_inputBYTES*BHello*H
sampling_parametersBYTES*'B%{"max_tokens": "4", "temperature": 0}*
streamBOOL*
